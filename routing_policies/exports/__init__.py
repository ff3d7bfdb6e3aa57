"""Policies in the words of other gateways, with what these can't say."""
