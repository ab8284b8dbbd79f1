"""A recorded history as files, pictures and a page."""
