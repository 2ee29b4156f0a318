"""What knows no model and no picture: games and their solutions, stand-ins fitted to them, intervals, integrals."""
