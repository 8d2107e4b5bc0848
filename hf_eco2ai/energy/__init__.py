"""2 integrate: joules between two readings, and nothing counted twice."""
