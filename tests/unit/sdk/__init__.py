"""Tests of the client library, against a small peer that speaks the real protocol."""
