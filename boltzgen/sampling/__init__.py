"""Drawing weighted samples from a trained flow."""
