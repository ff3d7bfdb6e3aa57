"""The documented shapes of Anthropic's usage and cost report, which the stand-in must have too.

Source: the API reference's pages "Get Messages Usage Report" and "Get Cost Report".
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z")
TOKEN_TYPES = (
    "uncached_input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation.ephemeral_1h_input_tokens",
    "cache_creation.ephemeral_5m_input_tokens",
)
TIERS = (None, "standard", "batch", "priority", "priority_on_demand", "flex", "flex_discount")

DOCUMENTED_USAGE = {
    "data": [
        {
            "starting_at": "2025-08-01T00:00:00Z",
            "ending_at": "2025-08-02T00:00:00Z",
            "results": [
                {
                    "api_key_id": "apikey_01Rj2N8SVvo6BePZj99NhmiT",
                    "cache_creation": {
                        "ephemeral_1h_input_tokens": 1000,
                        "ephemeral_5m_input_tokens": 500,
                    },
                    "cache_read_input_tokens": 200,
                    "context_window": "0-200k",
                    "model": "claude-sonnet-4-20250514",
                    "output_tokens": 500,
                    "server_tool_use": {"web_search_requests": 10},
                    "service_tier": "standard",
                    "uncached_input_tokens": 1500,
                    "workspace_id": "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ",
                }
            ],
        }
    ],
    "has_more": True,
    "next_page": "page_MjAyNS0wNS0xNFQwMDowMDowMFo=",
}
DOCUMENTED_COST = {
    "data": [
        {
            "starting_at": "2025-08-01T00:00:00Z",
            "ending_at": "2025-08-02T00:00:00Z",
            "results": [
                {
                    "currency": "USD",
                    "amount": "123.78912",
                    "workspace_id": "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ",
                    "description": "Claude Sonnet 4 Usage - Input Tokens",
                    "cost_type": "tokens",
                    "context_window": "0-200k",
                    "model": "claude-sonnet-4-20250514",
                    "service_tier": "standard",
                    "token_type": "uncached_input_tokens",
                }
            ],
        }
    ],
    "has_more": True,
    "next_page": "page_MjAyNS0wNS0xNFQwMDowMDowMFo=",
}


def check_page(page: dict[str, Any], kind: str) -> None:
    """That a page has the documented shape."""
    assert set(page) == {"data", "has_more", "next_page"}
    assert isinstance(page["has_more"], bool)
    assert (page["next_page"] is not None) == page["has_more"]
    for bucket in page["data"]:
        assert set(bucket) == {"starting_at", "ending_at", "results"}
        assert TIME.fullmatch(bucket["starting_at"])
        assert TIME.fullmatch(bucket["ending_at"])
        for result in bucket["results"]:
            (_check_usage if kind == "usage" else _check_cost)(result)


def _check_usage(result: dict[str, Any]) -> None:
    for name in ("uncached_input_tokens", "output_tokens", "cache_read_input_tokens"):
        assert isinstance(result[name], int)
    creation = result["cache_creation"]
    assert set(creation) == {"ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens"}
    assert isinstance(result["server_tool_use"]["web_search_requests"], int)
    assert result["service_tier"] in TIERS


def _check_cost(result: dict[str, Any]) -> None:
    assert result["currency"] == "USD"
    assert isinstance(result["amount"], str)
    assert Decimal(result["amount"]).is_finite()
    assert result["token_type"] in (None, *TOKEN_TYPES)
    assert result["cost_type"] in (None, "tokens", "web_search", "code_execution", "session_usage")
