"""What runs after what: ops, placements, orders and their text. Imports only the ground."""
