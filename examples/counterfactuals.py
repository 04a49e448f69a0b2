"""Change one mechanism at a time: python examples/counterfactuals.py [FOLDER OF A TRAINED GENERATOR]"""

import sys

import cgn

generator = cgn.load_generator(sys.argv[1] if len(sys.argv) > 1 else "runs/mnist/digits/train_cgn")
classes = list(range(generator.classes))
others = [*classes[3:], *classes[:3]]

factual = generator.draw(shape=classes, seed=0)
rows = {
    "factual": factual.images,
    "mask": factual.mask * 2 - 1,
    "do(texture)": factual.intervene(texture=others).images,
    "do(background)": factual.intervene(background=others).images,
    "do(shape)": factual.intervene(shape=others).images,
}
cgn.save_sheet(rows, "counterfactuals.png")
print("wrote counterfactuals.png")
