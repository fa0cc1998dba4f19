"""Heads that are computed: anatomy, and the physics that makes an MR and a CT of it."""
