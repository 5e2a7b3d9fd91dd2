"""How does HTTP reach a function? The toolkit: endpoints, binding, envelope, keys, limits, OpenAPI. It knows no feature."""
