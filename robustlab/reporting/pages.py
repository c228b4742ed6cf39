"""Templates to pages: one file each, that asks nothing of the network.

The page's own policy forbids it to load or run anything that is not in the file: the
script runs because its hash is named, so text that slips in could not run at all.
"""

from base64 import b64encode
from hashlib import sha256
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robustlab.reporting import palette

ENVIRONMENT: Final = Environment(
    loader=PackageLoader("robustlab.reporting"),
    autoescape=True,  # labels and file names are the user's text
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(page: str, **context: Any) -> str:
    """The page made from ``page.html``, ``page.css`` and ``page.js`` of the templates."""
    script = _source(f"{page}.js")
    style = palette_css() + _source("base.css") + _source(f"{page}.css")
    return ENVIRONMENT.get_template(f"{page}.html").render(
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704 - our own file
        policy=_policy(script),
        **context,
    )


def palette_css() -> str:
    """The palette for light and dark readers."""
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {palette.css(dark=True)} }} }}\n"
    # Paper is white: a print is light whatever the screen was.
    printed = f"@media print {{ :root {{ {palette.css(dark=False)} }} }}\n"
    return f":root {{ {palette.css(dark=False)} }}\n{dark}{printed}"


def _policy(script: str) -> str:
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        # Our script evaluates nothing; browser automation that inspects the page may.
        f"script-src 'sha256-{digest}' 'unsafe-eval'; base-uri 'none'; form-action 'none'"
    )


def _source(name: str) -> str:
    loader = ENVIRONMENT.loader
    if loader is None:
        raise RuntimeError("the templates have no loader")
    text, _, _ = loader.get_source(ENVIRONMENT, name)
    return text
