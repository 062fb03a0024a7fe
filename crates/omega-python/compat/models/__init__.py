"""The import paths of OMEGA's specification. New code imports from `omega_resilience`."""
