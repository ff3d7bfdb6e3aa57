"""The web pages: Jinja templates over the same readings that the API answers with."""

from loop.service.web.pages import web_routes

__all__ = ["web_routes"]
