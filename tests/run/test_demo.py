import numpy as np
from sklearn.model_selection import train_test_split

from sporeprint import Fungi, Recipe, knn
from sporeprint.run.demo import demo, digits


def test_the_demo_shows_the_default_recipe_at_the_price_of_one_pass():
    (entry,) = [entry for entry in demo(3, 20, 20).entries if entry.name == "free, the default"]
    images, labels = digits()
    train, test = train_test_split(np.arange(len(images)), train_size=20, test_size=20, stratify=labels, random_state=3)
    fungi = Fungi(Recipe("tiny", seed=3))
    features = fungi.fit_transform([images[at] for at in train])
    others = fungi.transform([images[at] for at in test])
    assert entry.passes == 1
    assert entry.width == features.shape[1]
    assert entry.value == knn(features, labels[train], others, labels[test], k="auto").value
