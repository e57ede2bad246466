"""Self-contained HTML pages, from the templates in this folder."""

from functools import cache
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Returns the page that a template makes of values, which are escaped.

    Raises: jinja2.UndefinedError for a value that the template needs and does not get.
    """
    return _environment().get_template(f"{template}.html.jinja").render(**values)


def number(value: Any) -> str:
    """Returns a value as text, floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sparse_ad.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["number"] = number
    return environment
