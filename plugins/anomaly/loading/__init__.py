"""The loading room: files into the meter table.

`files` reads a CSV file of readings and loads either all of it or nothing. It may import
`database`, `readings` and the words that every room uses, but nothing from scoring.
"""
