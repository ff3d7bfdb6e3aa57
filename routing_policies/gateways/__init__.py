"""What runs inside gateways: a LiteLLM plugin, and decide() in JavaScript and in Lua."""
