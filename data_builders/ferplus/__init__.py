"""The FERPlus dataset: FER2013's faces with the FER+ votes."""
