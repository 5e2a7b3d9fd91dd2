"""What may a client ask for, in OpenAPI 3.1? Made from the endpoints themselves."""

import re
from collections.abc import Sequence
from functools import cache, reduce
from http import HTTPStatus
from operator import or_
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from plunk_relay.errors import (
    BadRequest,
    EmailVerificationRequired,
    Forbidden,
    InvalidApiKey,
    MalformedBody,
    MissingAuth,
    NotSignedIn,
    PayloadTooLarge,
    ProjectAccessDenied,
    ProjectDisabled,
    RateLimited,
    RelayError,
    Unavailable,
    ValidationFailed,
)
from plunk_relay.web.access import COOKIE, Auth
from plunk_relay.web.endpoint import Answer, Endpoint
from plunk_relay.web.multipart import UploadField

_REF = "#/components/schemas/{model}"
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["success", "error", "timestamp"],
    "properties": {
        "success": {"const": False},
        "error": {
            "type": "object",
            "required": ["code", "message", "statusCode", "requestId"],
            "properties": {
                "code": {"type": "string", "description": "Machine-readable code"},
                "message": {"type": "string", "description": "Human-readable description"},
                "statusCode": {"type": "integer"},
                "requestId": {"type": "string", "format": "uuid"},
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["field", "message", "code"],
                        "properties": {
                            "field": {"type": "string", "description": "Dot path, such as to.0"},
                            "message": {"type": "string"},
                            "code": {"type": "string"},
                            "received": {"type": "string"},
                        },
                    },
                },
                "details": {"type": "object"},
                "suggestion": {"type": "string"},
            },
        },
        "timestamp": {"type": "string", "format": "date-time"},
    },
}


def build_document(endpoints: Sequence[Endpoint], *, version: str, server_url: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document; made once for the same endpoints, so do not change it."""
    return _build(tuple(endpoints), version, server_url)


@cache
def _build(endpoints: tuple[Endpoint, ...], version: str, server_url: str) -> dict[str, Any]:
    schemas = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = re.sub(r"\{(\w+):path\}", r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Plunk Relay",
            "version": version,
            "description": "Transactional mail over HTTP and SMTP, delivered by your own server.",
        },
        "servers": [{"url": server_url}],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR_SCHEMA},
            "securitySchemes": {
                "secretKey": {"type": "http", "scheme": "bearer", "description": "The project's secret key, sk_..."},
                "publicKey": {"type": "http", "scheme": "bearer", "description": "The project's public key, pk_..."},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": "A person who signed in; the header `X-Project-Id` says which project is meant",
                },
            },
        },
    }


def _schemas(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    for endpoint in endpoints:
        if endpoint.body is not None:
            wanted.append((endpoint.body, "validation"))
        wanted += [(model, "serialization") for model in _models_of(endpoint.result)]
    _, definitions = models_json_schema(list(dict.fromkeys(wanted)), by_alias=True, ref_template=_REF)
    found: dict[str, Any] = definitions.get("$defs", {})
    return found


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return [item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)]


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "description": endpoint.prose,
        "parameters": _parameters(endpoint),
        "responses": _responses(endpoint),
        "security": _security(endpoint.auth),
    }
    if endpoint.body is not None:
        schema = {"$ref": _REF.format(model=endpoint.body.__name__)}
        needed = any(field.is_required() for field in endpoint.body.model_fields.values())  # an absent body is an empty one
        operation["requestBody"] = {"required": needed, "content": {"application/json": {"schema": schema}}}
    if endpoint.upload is not None:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _form(endpoint.upload)}}}
    return operation


def _form(field: UploadField) -> dict[str, Any]:
    text = f"The file, up to {field.most_bytes} bytes"
    part = {"type": "string", "contentMediaType": "application/octet-stream", "description": text}
    return {"type": "object", "required": [field.name], "properties": {field.name: part}}


def _security(auth: Auth) -> list[dict[str, list[str]]]:
    if auth is Auth.NONE:
        return []
    kinds = {Auth.ANY_KEY: ["secretKey", "publicKey"], Auth.DUAL: ["secretKey", "session"]}
    return [{kind: []} for kind in kinds.get(auth, ["secretKey"])]


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [_path_parameter(endpoint, name) for name in endpoint.path_parameters]
    if endpoint.query is not None:
        schema = endpoint.query.model_json_schema(by_alias=True, ref_template=_REF)
        for name, value in schema.get("properties", {}).items():
            required = name in schema.get("required", [])
            found.append({"name": name, "in": "query", "required": required, "schema": value})
    if endpoint.idempotent:
        schema = {"type": "string", "minLength": 1, "maxLength": 255}
        text = "A second request with the same key is refused with 409 for 24 hours."
        found.append({"name": "Idempotency-Key", "in": "header", "schema": schema, "description": text})
    return found


def _path_parameter(endpoint: Endpoint, name: str) -> dict[str, Any]:
    hint = get_type_hints(endpoint.handler, include_extras=True)[name]
    told = [note for note in getattr(hint, "__metadata__", ()) if isinstance(note, str)]
    thing = name.removesuffix("_id").replace("_", " ")
    text = told[0] if told else f"Id of the {thing}"
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": text}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses: dict[str, Any] = {str(status): _result(endpoint, status) for status in (endpoint.status, *endpoint.also)}
    codes: dict[int, list[str]] = {}
    for error in _errors_of(endpoint):
        codes.setdefault(error.status, []).append(error.code)
    for status, names in sorted(codes.items()):
        schema = {"$ref": _REF.format(model="Error")}
        text = ", ".join(dict.fromkeys(names))
        responses[str(status)] = {"description": text, "content": {"application/json": {"schema": schema}}}
    return responses


def _result(endpoint: Endpoint, status: int) -> dict[str, Any]:
    """Describe an answer in the shape of the result; an `Answer` beside models is one of them, written by hand."""
    text = "Success" if status < 300 else HTTPStatus(status).phrase
    models = _models_of(endpoint.result)
    if not models:
        content = {kind: {"schema": {"type": "string"}} for kind in endpoint.produces if status < 300}
        return {"description": text} | ({"content": content} if content else {})
    result = reduce(or_, models) if Answer in getattr(endpoint.result, "__args__", ()) else endpoint.result
    schema = TypeAdapter(result).json_schema(mode="serialization", by_alias=True, ref_template=_REF)
    schema.pop("$defs", None)
    if isinstance(result, type) and issubclass(result, BaseModel):
        schema = {"$ref": _REF.format(model=result.__name__)}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _errors_of(endpoint: Endpoint) -> list[type[RelayError]]:
    found = list(endpoint.errors)
    if endpoint.auth is not Auth.NONE:
        found += [MissingAuth, InvalidApiKey, RateLimited]
    if endpoint.auth is Auth.DUAL:
        found += [NotSignedIn, BadRequest, ProjectAccessDenied, EmailVerificationRequired]
        found += [Forbidden] if endpoint.method != "GET" else []
    if endpoint.auth is not Auth.NONE:
        found += [ProjectDisabled] if endpoint.method != "GET" else []
    if endpoint.body is not None:
        found += [MalformedBody, PayloadTooLarge]
    if endpoint.upload is not None:
        found += [BadRequest, PayloadTooLarge]
    if endpoint.body is not None or endpoint.query is not None:
        found.append(ValidationFailed)
    if endpoint.method != "GET":
        found.append(Unavailable)
    return list(dict.fromkeys(found))
