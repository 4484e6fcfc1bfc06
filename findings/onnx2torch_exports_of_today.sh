#!/usr/bin/env bash
# onnx2torch 1.5.15 reads no file that torch.onnx.export (torch 2.13) writes by default of
# networks that do as common a thing as averaging over pixels or viewing a batch as rows:
# the file's operations are of version 20 of ONNX, and of `Constant`, `Shape`,
# `ReduceMean` or `Reshape` the converter knows earlier versions alone. Asking torch for
# an earlier version helps only where its translation does not fall back to the new one;
# onnx.version_converter, which is in the onnx package itself, helps with all four, and
# the network that is read computes what the exported one does.
#
# Seen on 2026-11-28 with Python 3.11, torch 2.13.0, onnx 1.20.1, onnxscript 0.5.6:
#
