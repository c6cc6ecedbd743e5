"""Backbones, the layer that normalises on the device, and the LightningModule."""
