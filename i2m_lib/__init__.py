import warnings

# The workers of joblib keep what they have read: it takes that for a leak, and warns when it starts one anew.
warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
