"""The question and the jobs of the demo, for a model that chats."""

QUESTION = "What is the capital of France?"

_CODE = """```python
def area(width, height):
    return width * height


def main():
    for width in [2, 3, 4]:
        for height in [5, 6]:
            print("area of", width, "by", height, "is", area(width, height))


main()
```"""

_PASSAGE = (
  "The Great Barrier Reef is the world's largest coral reef system, composed of over 2,900 "
  "individual reefs and 900 islands stretching for over 2,300 kilometres off the coast of "
  "Queensland, Australia. It supports a wide diversity of life and was selected as a World "
  "Heritage Site in 1981. Rising sea temperatures have caused mass bleaching of corals, and the "
  "government of Australia has a plan to protect the reef from pollution and fishing."
)

_CALL = '{"tool": "get_weather", "arguments": {"city": "Paris", "unit": "celsius", "days": 3}}'

# Answers repeat parts of their prompts, which is what drafts without a draft model are copied from.
JOBS = {
  "rewrite code": f"Add a comment above each function. Return the whole code.\n\n{_CODE}",
  "summarise a passage": f"Summarise this text in three sentences.\n\n{_PASSAGE}",
  "call a tool": f"You have one tool. Its calls look like this:\n{_CALL}\n\n"
  "Write the calls for London, Rome and Madrid, one per line.",
}
