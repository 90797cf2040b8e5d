"""The OpenAPI document and a page to read it with, all from this server."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from flask import Blueprint, Response, abort, current_app

from api.json_text import JSON

blueprint = Blueprint("documentation", __name__)

DOCUMENT_PATH: Final = "/v1/openapi.json"
DOCUMENT: Final = "audit-ledger-openapi"

_ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit ledger API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = """SwaggerUIBundle({
  url: "/v1/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false,
});
"""
# Swagger UI draws its icons as data: images and sets style attributes; scripts come from here and nowhere else.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get(DOCUMENT_PATH)
def openapi() -> Response:
    """The OpenAPI document of this version."""
    return Response(current_app.extensions[DOCUMENT], mimetype=JSON)


@blueprint.get("/docs")
def page() -> Response:
    """The page."""
    return _guarded(Response(_PAGE, mimetype="text/html"))


@blueprint.get("/docs/start.js")
def start() -> Response:
    """What starts Swagger UI on the page."""
    return _guarded(Response(_START, mimetype="text/javascript"))


@blueprint.get("/docs/<asset>")
def assets(asset: str) -> Response:
    """A file of Swagger UI, as it is bundled."""
    if asset not in _ASSETS:
        abort(404)
    content = files("flask_swagger_ui").joinpath("dist", asset).read_bytes()
    return _guarded(Response(content, mimetype=_ASSETS[asset]))


def _guarded(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cache-Control"] = "no-cache"
    return response
