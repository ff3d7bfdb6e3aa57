"""The LLM judge: rubrics, what is sent, what may be answered, and what it costs."""
