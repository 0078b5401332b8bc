"""The ground on which every folder stands; it knows no pipeline. Imports ``errors``, and no part of it another."""
