"""Backbones, the layer that normalizes on the device, and the LightningModule."""
