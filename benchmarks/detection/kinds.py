"""Which attacks are alike: what is learned from one tells much of the others."""

KINDS = {
    "gradient steps": ("FGSM", "PGD", "APGD"),
    "short ones": ("CW", "DeepFool", "minimal norm"),
    "black-box ones": ("Square",),
}
