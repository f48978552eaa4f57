"""Result records: their fields, their files, what is valid, where they came from."""
