"""The alerts room: who is told what, once, and never of a backfill.

- `events` finds what of changed incidents people are to be told, and writes it to the outbox in the
  publishing transaction.
- `decisions` says of each event whether it is told, waits, or is told to nobody, and why.
- `routes` finds the channels of an event, `channels` hands a message to one.
- `messages` writes a message from a template, `picture` draws the machine's last day.
- `sending` does all of it: it decides, makes messages, and sends those that are due.

It may import `incidents`, `database`, `readings` and the words that every room uses. It does not
know scoring or models.
"""
