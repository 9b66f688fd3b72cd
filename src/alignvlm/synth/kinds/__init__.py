"""Document kinds, a module for one or two: each has functions that draw a page of its kind."""
