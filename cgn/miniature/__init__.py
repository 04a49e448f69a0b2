"""The miniature world: nine classes drawn by formulas, so that every mask, texture and background is known."""
