"""The REST front: the web app's view of jobs, as the reference describes it."""

from ourvidz_gateway.rest.app import create_rest_app

__all__ = ["create_rest_app"]
