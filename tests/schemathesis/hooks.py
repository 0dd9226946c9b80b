"""What a description can't say, or says of every server and not of this one.

`closed` makes the check of answers stricter than the description: a field that is not described is an error. `fitting`
changes valid requests where their validity depends on the machine, on what exists, or on two fields together.
"""

import re

import schemathesis

RUNTIME_MIB = 64

# Words of the older releases of the client.
SIZES = {"vcpus", "cur_memory_mib", "min_memory_mib", "max_memory_mib"}


def references(value, schemas):
    """The names of all schemas that are used in a part of the description."""
    found, open_ = set(), [value]
    while open_:
        value = open_.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix("#/components/schemas/")
            if name in schemas and name not in found:
                found.add(name)
                open_.append(schemas[name])
            open_.extend(value.values())
        elif isinstance(value, list):
            open_.extend(value)
    return found


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Closes the objects of answers: clients must ignore what they don't know, but here it would be a lie by omission."""
    schemas = raw_schema["components"]["schemas"]
    bodies = [
        operation.get("requestBody")
        for item in raw_schema["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
    ]
    requested = references(bodies, schemas)
    for name, schema in schemas.items():
        closable = schema.get("type") == "object" and "additionalProperties" not in schema
        # Details of errors are open by contract.
        if closable and name not in requested and name != "ErrorDetails":
            schema["additionalProperties"] = False


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes valid requests fit."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    change = FITTING.get(case.operation.definition.raw.get("operationId"))
    if change is not None and isinstance(case.body, dict):
        case.body = change(dict(case.body))
    query = dict(case.query or {})
    # Cursors are the server's to make.
    query.pop("after", None)
    if "path" in query:
        query["path"] = plain(str(query["path"]))
    if query != (case.query or {}):
        case.query = query


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Forgives what a description can't say."""
    if type(failure).__name__ != "AcceptedNegativeData":
        return True
    if "" in (case.query or {}).values():
        # An empty parameter is none.
        return False
    body = case.body if isinstance(case.body, dict) else {}
    # The older words for sizes mean nothing beside the newer ones.
    return not (SIZES & body.keys() and "resources" in body)


def plain(path):
    """A path that a file can have: no directory, and no part that is too long."""
    return path if re.fullmatch(r"[^/]{1,60}", path) and path not in (".", "..") else "file"


def small(number, most):
    # `2.0` is a whole number, too.
    return min(number, most) if isinstance(number, (int, float)) and not isinstance(number, bool) else number


def inner(body, *names):
    """An object in the body, copied so that it can be changed."""
    for name in names:
        value = body.get(name)
        if not isinstance(value, dict):
            return {}
        body[name] = dict(value)
        body = body[name]
    return body


def sizes(body):
    """Sizes that this machine can give, and that fit together."""
    for name in ["cur_memory_mib", "min_memory_mib", "max_memory_mib"]:
        body.pop(name, None)
    for place in [body, inner(body, "resources", "requests")]:
        if "vcpus" in place:
            place["vcpus"] = small(place["vcpus"], 2)
    for kind in ["requests", "limits"]:
        place = inner(body, "resources", kind)
        if "memory_mib" in place:
            place["memory_mib"] = small(place["memory_mib"], RUNTIME_MIB) and RUNTIME_MIB
    limits = inner(body, "limits")
    if "pids" in limits:
        limits["pids"] = small(limits["pids"], 256)
    if "disk_mib" in limits:
        limits["disk_mib"] = small(limits["disk_mib"], 64)
    return body


def create(body):
    for name, known in [("profile", ["default", "strict"]), ("image", ["host"]), ("arch", []), ("checkpoint_id", [])]:
        if body.get(name) not in known:
            body.pop(name, None)
    return sizes(body)


def execute(body):
    if body.get("cwd") is not None:
        body["cwd"] = "/tmp"
    if body.get("stdin") is not None:
        body.pop("stdin_base64", None)
    if not body.get("detach"):
        body["max_output_bytes"] = small(body.get("max_output_bytes"), 32 << 20)
    # A random command may wait for ever.
    body["timeout_secs"] = small(body.get("timeout_secs"), 2) or 2
    limits = inner(body, "limits")
    for name, most in [("memory_mib", RUNTIME_MIB), ("pids", 64)]:
        if name in limits:
            limits[name] = small(limits[name], most)
    return body


def checkpoint(body):
    # At most 128 bytes, which JSON Schema counts as characters.
    if isinstance(body.get("name"), str):
        body["name"] = body["name"][:32]
    return body


FITTING = {
    "create_runtime": create,
    "patch_runtime": sizes,
    "exec_runtime": execute,
    "create_checkpoint": checkpoint,
}
