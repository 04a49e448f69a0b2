"""How the miniature's nets are trained from scratch; results/imagenet/pretraining/ has the pipeline and the results."""
