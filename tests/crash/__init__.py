"""The crash matrix: peers that die at a named row of their journal, or at a named effect, and come back."""
