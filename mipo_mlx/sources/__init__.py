"""Contexts and prompts: notes, chats and data sets become passages about the user, split so that none is on both sides."""
