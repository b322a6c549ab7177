"""Has anything got worse since the baseline?"""
