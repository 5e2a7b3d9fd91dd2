"""How do people read the API? One page made from the OpenAPI document; it needs no script and no other server."""

import json
from functools import cache
from typing import Any

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
    return _template().render(info=document["info"], operations=operations).encode()


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("plunk_relay.web", ".")
    return jinja2.Environment(loader=loader, autoescape=True).get_template("docs.html.jinja")


def _operation(document: dict[str, Any], path: str, method: str, item: dict[str, Any]) -> dict[str, Any]:
    schema = _body_schema(document, item)
    return {
        "id": item["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": item["summary"],
        "paragraphs": [text for text in item["description"].split("\n\n") if text],
        "parameters": item["parameters"],
        "fields": _fields(schema),
        "answers": [(status, answer["description"]) for status, answer in item["responses"].items()],
        "curl": _curl(document, path, method, item, schema),
    }


def _body_schema(document: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    content = item.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"].get(name, {})
    return found


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", [])
    return [
        {"name": name, "type": _type(value), "text": value.get("description", ""), "required": name in required}
        for name, value in schema.get("properties", {}).items()
    ]


def _type(value: dict[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(_type(option) for option in value["anyOf"] if option.get("type") != "null")
    if value.get("type") == "array":
        return f"array of {_type(value.get('items', {}))}"
    return str(value.get("type") or value.get("$ref", "").rpartition("/")[2] or "any")


def _curl(document: dict[str, Any], path: str, method: str, item: dict[str, Any], schema: dict[str, Any]) -> str:
    lines = [f"curl -X {method.upper()} {document['servers'][0]['url']}{path}"]
    if item["security"]:
        lines.append('  -H "Authorization: Bearer $PLUNK_SECRET_KEY"')
    examples = schema.get("examples")
    if examples:
        lines += ['  -H "Content-Type: application/json"', f"  -d '{json.dumps(examples[0])}'"]
    return " \\\n".join(lines)
