"""The live dashboard: pages over one or several results folders, growing or finished."""
