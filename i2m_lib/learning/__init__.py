"""Learning: from one image to the best template and its deformation. Needs neither VTK nor trimesh."""
