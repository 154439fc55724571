"""Chat of Gemma 3: the end of a turn, Google's sampling settings, the published templates and the license."""

from __future__ import annotations

from gemmaq.models.family import Chat, License, Turns

_GO_TURNS = """{{- $system := .System }}
{{- range $at, $message := .Messages }}
{{- $open := eq (len (slice $.Messages $at)) 1 }}
{{- if eq $message.Role "user" }}<start_of_turn>user
{{ if $system }}{{ $system }}

{{ $system = "" }}{{ end }}{{ $message.Content }}<end_of_turn>
{{ if $open }}<start_of_turn>model
{{ end }}
{{- else if eq $message.Role "assistant" }}<start_of_turn>model
{{ $message.Content }}{{ if not $open }}<end_of_turn>
{{ end }}
{{- end }}
{{- end }}"""
"""Turns in Go's template language.

The system text goes before the first user turn; an answer at the end is left open, to be continued.
"""

CHAT = Chat(
    stop="<end_of_turn>",
    sampling={"temperature": 1, "top_k": 64, "top_p": 0.95},  # as in the published generation_config.json
    templates=frozenset(
        (
            "7de1c58e208eda46e9c7f86397df37ec49883aeece39fb961e0a6b24088dd3c4",
            "5437d0ad30bb8db69f45cd62c6e02d4269ee617ec9637c9650f8f04051bd9dbc",  # the first release of 1B
        )
    ),
    ollama=lambda _: Turns(template=_GO_TURNS),
    projector_since="0.30.4",
)

LICENSE = License(
    name="gemma",
    link="https://ai.google.dev/gemma/terms",
    notice="Gemma is provided under and subject to the Gemma Terms of Use found at https://ai.google.dev/gemma/terms",
)
