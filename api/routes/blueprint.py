"""A blueprint that checks requests strictly and documents its problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask_smorest import Blueprint

from api.parsing import StrictParser
from api.problems import ALL_KINDS, MEDIA_TYPE
from api.schemas.answers import Problem

View = TypeVar("View", bound=Callable[..., Any])

LEDGER_PROBLEMS = (401, 403, 404, 429, 500, 503)
"""What every endpoint of a ledger can answer."""


class Endpoints(Blueprint):
    """Endpoints of one kind of thing."""

    ARGUMENTS_PARSER = StrictParser()

    def problems(self, *statuses: int) -> Callable[[View], View]:
        """Document that a view can answer with these statuses."""

        def decorate(view: View) -> View:
            for status in sorted(statuses, reverse=True):
                codes = sorted({kind.code for kind in ALL_KINDS if kind.status == status})
                view = self.alt_response(
                    status,
                    schema=Problem,
                    content_type=MEDIA_TYPE,
                    description=", ".join(f"`{code}`" for code in codes),
                )(view)
            return view

        return decorate

    def takes(self, schema: type[Any], *, location: str = "json") -> Callable[[View], View]:
        """Hand the view what the schema loads: from the body, or with ``query`` from the URL."""
        required = not getattr(schema, "body_optional", False)
        decorate = self.arguments(schema, location=location, required=required)
        return cast("Callable[[View], View]", decorate)
