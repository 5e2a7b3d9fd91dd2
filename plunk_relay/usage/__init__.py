"""Where is it used? The segments, campaigns and workflows that name a field, an event or a segment."""
