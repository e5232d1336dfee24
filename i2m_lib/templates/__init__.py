"""Templates: free-form deformation, registration, the template graph, shapes as few numbers."""
