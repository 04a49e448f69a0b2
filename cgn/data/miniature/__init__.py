"""The miniature world: nine classes whose shapes, textures and backgrounds are drawn by formulas, so that the truth is known."""
