# SPDX-License-Identifier: Apache-2.0
# Python's share of the day: dictionaries, strings, integers, regular expressions, JSON, objects.
import hashlib
import json
import re
import random

random.seed(7)


class Node:
    def __init__(self, key):
        self.key, self.left, self.right = key, None, None

    def insert(self, key):
        node = self
        while True:
            side = "left" if key < node.key else "right"
            below = getattr(node, side)
            if below is None:
                setattr(node, side, Node(key))
                return
            node = below

    def depth(self):
        return 1 + max(self.left.depth() if self.left else 0, self.right.depth() if self.right else 0)


def words():
    count = {}
    with open("/bench/lines") as f:
        for line in f:
            for word in re.findall(r"[a-z]+", line):
                count[word] = count.get(word, 0) + 1
    return sorted(count.items(), key=lambda item: (-item[1], item[0]))[:50]


root = Node(500000)
for _ in range(20000):
    root.insert(random.randrange(1000000))
primes = [n for n in range(2, 12000) if all(n % d for d in range(2, int(n ** 0.5) + 1))]
text = json.dumps({"words": words(), "depth": root.depth(), "primes": primes})
again = json.dumps(json.loads(text), sort_keys=True)
print(hashlib.sha256(again.encode()).hexdigest(), 3 ** 4000 % 1000003)
