"""The router: an OpenAI-compatible service that asks the small model first and hands up.

A `RouterConfig` says which models, which policy and which limits; `Router` answers requests by it,
and `advisor.router.server.build_app` puts it behind HTTP.
"""
