"""Questions to answers: which model, on what hardware, token by token.

Nothing is imported here: `alignvlm.inference.ask` refuses a bad file or question without torch.
"""
