"""How do people read the API? One page made from the OpenAPI document; it needs no script and no other server."""

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from plunk_relay.errors import FIELD_CODES
from plunk_relay.web.error_codes import UNSENT, list_codes

if TYPE_CHECKING:
    import jinja2

_METHODS = ("get", "post", "put", "patch", "delete")


def render_docs(document: dict[str, Any]) -> bytes:
    """Return the page."""
    operations = [
        _operation(document, path, method, item[method])
        for path, item in document["paths"].items()
        for method in _METHODS
        if method in item
    ]
    return _environment().get_template("docs.html.jinja").render(info=document["info"], operations=operations).encode()


def render_errors(document: dict[str, Any], example: str) -> bytes:
    """Return the page about error codes; `example` is an error as it is sent."""
    values = {"info": document["info"], "rows": list_codes(), "unsent": UNSENT, "field_codes": FIELD_CODES}
    return _environment().get_template("errors.html.jinja").render(values, example=example).encode()


@cache
def _environment() -> "jinja2.Environment":
    import jinja2  # noqa: PLC0415  2 MB that a server without readers does not need

    environment = jinja2.Environment(loader=jinja2.PackageLoader("plunk_relay.web", "."), autoescape=True)
    environment.filters["code"] = _mark_code
    return environment


def _mark_code(text: str) -> Markup:
    """Show what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if odd % 2 else part for odd, part in enumerate(parts))


def _operation(document: dict[str, Any], path: str, method: str, item: dict[str, Any]) -> dict[str, Any]:
    schema = _body_schema(document, item)
    return {
        "id": item["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": item["summary"],
        "paragraphs": [text for text in item["description"].split("\n\n") if text],
        "parameters": [_parameter(one) for one in item["parameters"]],
        "fields": _fields(document, schema),
        "answers": [(status, answer["description"]) for status, answer in item["responses"].items()],
        "curl": _curl(document, path, method, item, schema),
    }


def _body_schema(document: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    content = item.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"].get(name, {})
    return found


def _parameter(item: dict[str, Any]) -> dict[str, Any]:
    text = item.get("description") or item["schema"].get("description", "")
    return {
        "name": item["name"],
        "place": item["in"],
        "type": _type(item["schema"]),
        "text": text,
        "required": item.get("required", False),
    }


def _fields(document: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> list[dict[str, Any]]:
    """List the fields of a body; those of the objects inside a list follow it as `list[].field`."""
    required = schema.get("required", [])
    found: list[dict[str, Any]] = []
    for name, value in schema.get("properties", {}).items():
        text = value.get("description", "")
        found.append({"name": prefix + name, "type": _type(value), "text": text, "required": name in required})
        if (items := _listed_model(document, value)) is not None:
            found += _fields(document, items, f"{prefix}{name}[].")
    return found


def _listed_model(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any] | None:
    """Return the model whose objects, and nothing else, a field lists."""
    options = [option for option in value.get("anyOf", [value]) if option.get("type") != "null"]
    name = options[0].get("items", {}).get("$ref", "").rpartition("/")[2] if len(options) == 1 else ""
    model: dict[str, Any] | None = document["components"]["schemas"].get(name)
    return model


def _type(value: dict[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(_type(option) for option in value["anyOf"] if option.get("type") != "null")
    if value.get("type") == "array":
        items = value.get("items", {})
        return f"array of ({_type(items)})" if "anyOf" in items else f"array of {_type(items)}"
    if "enum" in value:
        return " or ".join(f"`{option}`" for option in value["enum"])
    kinds = "object" if "$ref" in value else value.get("type", "any")
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)


def _curl(document: dict[str, Any], path: str, method: str, item: dict[str, Any], schema: dict[str, Any]) -> str:
    lines = [f"curl -X {method.upper()} {document['servers'][0]['url']}{path}"]
    if item["security"]:
        lines.append('  -H "Authorization: Bearer $PLUNK_SECRET_KEY"')
    examples = schema.get("examples")
    if examples:
        lines += ['  -H "Content-Type: application/json"', f"  -d '{json.dumps(examples[0], indent=2)}'"]
    return " \\\n".join(lines)
