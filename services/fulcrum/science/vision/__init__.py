"""Vision and text towers of OpenCLIP, split at a hook point."""
